"""All pages for a browser behind one router."""

from fastapi import APIRouter

from api.dashboard import grid, job, jobs, policies, submit, workers

router = APIRouter(include_in_schema=False)
for page in (jobs, submit, job, policies, grid, workers):
    router.include_router(page.router)
