"""All pages for a browser behind one router."""

from fastapi import APIRouter

from api.dashboard import grid, workers
from api.dashboard.jobs import job_page, list_page
from api.dashboard.policies import editor_page
from api.dashboard.submit import submit_page

router = APIRouter(include_in_schema=False)
for page in (list_page, submit_page, job_page, editor_page, grid, workers):
    router.include_router(page.router)
