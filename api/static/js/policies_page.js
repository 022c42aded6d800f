// The list of policies, with deletion.

import { renew } from "./live.js";
import { policyDelete } from "./policy_delete.js";

policyDelete(() => renew());
