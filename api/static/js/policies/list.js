// The list of policies, with deletion.

import { renew } from "../live.js";
import { policyDelete } from "./delete.js";

policyDelete(() => renew());
