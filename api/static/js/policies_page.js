// The list of policies: deleting one.

import { renew } from "./live.js";
import { policyDelete } from "./policy_delete.js";

policyDelete(() => renew());
