// The page of one policy: the editor for operators, with the curve and the backtest.

import { deletion } from "../deletion.js";
import { time } from "../format.js";
import { policyBacktest } from "./pictures/backtest.js";
import { policyCurve } from "./pictures/curve.js";
import { openDraft } from "./draft.js";
import { showFaults } from "./faults.js";
import { policyForm } from "./form.js";
import { policyJson } from "./json.js";
import { policyPictures } from "./pictures/pictures.js";
import { simulatedRun } from "./run.js";
import { policySave } from "./save.js";

const USUAL_RUN = { work_hours: 8, epochs: 8, power_w: 300 };

const byId = (id) => document.getElementById(id);
const { name, version, stored: text } = byId("policy").dataset;
const stored = { name, version: Number(version), body: JSON.parse(text) };
const form = byId("policy-form");
const draft = form ? openDraft(stored) : null;

const base = () => draft?.base ?? stored;
const labels = () => ({ stored: `version ${base().version}`, edited: base().version ? "edited" : "new" });
const versions = () => ({
  stored: base().version ? base().body : null,
  edited: draft && (draft.isChanged() || !base().version) ? draft.body : null,
});

const json = form && policyJson(byId("json"), byId("json-fault"), draft);
if (form) policyForm(form, draft);
const run = simulatedRun(byId("run"), USUAL_RUN);
const pictures = policyPictures({
  versions,
  run,
  curve: policyCurve(labels),
  backtest: policyBacktest(byId("backtest"), labels),
  form,
  runForm: byId("run"),
  json,
});
run.onChange(pictures.soon);
pictures.redraw();
if (draft) edit();

function edit() {
  const saving = policySave({
    button: byId("save"),
    refusal: byId("refusal"),
    draft,
    told: (errors) => showFaults(form, errors, "policy."),
    onSaved({ version: saved, created_at: at }) {
      if (!stored.version) {
        location.assign(`/dashboard/policies/${encodeURIComponent(draft.name)}`);
        return;
      }
      byId("version").textContent = `version ${saved}, since ${time(at)}`;
    },
  });
  const discard = byId("discard");
  discard.addEventListener("click", () => {
    draft.rebase(base(), base().body);
    saving.say();
    byId("save").focus();
  });
  const named = byId("policy-name");
  named?.addEventListener("input", () => draft.rename(named.value.trim()));
  if (named?.value) draft.rename(named.value.trim()); // written before this script was loaded
  draft.onChange(mark);
  draft.onChange((source) => {
    if (source === "name") return;
    if (draft.text === null) pictures.soon();
  });
  mark("load");
  byId("save").disabled = false; // the server sends it disabled, as it works only with this script
  if (draft.wasKept && base().version !== stored.version) {
    saving.say(`Your unsaved changes began from version ${base().version}; version ${stored.version} has been stored since.`);
  }
  if (byId("delete-dialog")) {
    deletion("/policies", () => {
      draft.rebase(base(), base().body);
      location.assign("/dashboard/policies");
    });
  }
}

function mark(source) {
  const changed = draft.isChanged();
  const next = base().version + 1;
  byId("unsaved").textContent = changed ? "Unsaved changes, kept in this tab" : "";
  byId("discard").hidden = !changed;
  byId("save").textContent = base().version ? `Save as version ${next}` : "Save";
  // Not `disabled`, since that would take the focus from the button.
  byId("save").setAttribute("aria-disabled", String(base().version > 0 && !changed));
  if (source !== "name" && byId("policy-name")) byId("policy-name").value = draft.name;
}
