// The list of policies, with deletion.

import { deletion } from "../deletion.js";
import { renew } from "../live.js";

deletion("/policies", () => renew());
