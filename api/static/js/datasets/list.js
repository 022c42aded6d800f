// The list of datasets: an upload opens the page of the new one, which a deletion removes from the list.

import { deletion } from "../deletion.js";
import { renew } from "../live.js";
import { upload } from "../upload.js";

upload(document.getElementById("file"), (dataset) => location.assign(`/dashboard/datasets/${dataset.id}`));
deletion("/datasets", () => renew());
