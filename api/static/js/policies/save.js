// Saves the draft as the next version; refuses to overwrite a version stored since editing began.

import { announce } from "../announce.js";
import { get, put } from "../api.js";
import { element, say as show } from "../dom.js";

// `told` shows the errors of a refused policy and returns those without a field in the form.
export function policySave({ button, refusal, draft, told, onSaved }) {
  async function save() {
    if (button.getAttribute("aria-disabled") === "true") return null;
    say();
    if (draft.text !== null) return say("Nothing is saved: the JSON is not valid.");
    const { base, name } = draft;
    if (!name) return say("Nothing is saved: a name is missing.");
    button.setAttribute("aria-disabled", "true");
    try {
      const answer = await put(path(name), { policy: draft.body }, { headers: follows(base.version) });
      const body = inOrder(answer.policy);
      draft.rebase({ name, version: answer.version, body }, body);
      announce(`Saved as version ${answer.version}`);
      onSaved(answer);
    } catch (error) {
      if (error.status === 412) return refuse(name);
      fault(error);
    }
    return null;
  }

  function fault(error) {
    const left = told(error.errors ?? []);
    const more = left.map(({ field, message }) => ` ${field}: ${message}.`).join("");
    say(error.errors?.length ? `Nothing is saved: the policy has errors.${more}` : `Nothing is saved. ${error.message}`);
    button.setAttribute("aria-disabled", "false");
  }

  async function refuse(name) {
    try {
      conflict(await newest(name));
      button.setAttribute("aria-disabled", "false");
    } catch (error) {
      fault(error);
    }
    return null;
  }

  function conflict(stored) {
    const { base, name } = draft;
    if (base.version === 0) {
      say(`Nothing is saved: there is a policy named ${name} already.`);
      refusal.append(element("a", { href: `/dashboard/policies/${encodeURIComponent(name)}` }, `Open ${name}`));
      return;
    }
    if (!stored) {
      say(`Nothing is saved: ${name} has been deleted since you began from version ${base.version}.`);
      refusal.append(choice("Keep mine, to be saved as its first version", () => draft.rebase({ ...base, version: 0 })));
      return;
    }
    const theirs = { name, version: stored.version, body: inOrder(stored.policy) };
    say(`Nothing is saved: version ${stored.version} has been stored since you began from version ${base.version}.`);
    refusal.append(
      choice(`Keep mine, and compare it with version ${stored.version}`, () => draft.rebase(theirs)),
      choice(`Take version ${stored.version}, and drop mine`, () => draft.rebase(theirs, theirs.body)),
    );
    refusal.querySelector("button").focus();
  }

  function choice(text, does) {
    const option = element("button", { type: "button" }, text);
    option.addEventListener("click", () => {
      does();
      say();
      button.focus();
    });
    return option;
  }

  function say(text = "") {
    show(refusal, text && `${text} `);
  }

  button.addEventListener("click", save);
  return { say };
}

// Orders the fields: those of the kind before those of all kinds.
const inOrder = ({ kind, gate, smoothing, on_missing: missing, ...own }) => ({ kind, ...own, gate, smoothing, on_missing: missing });

// The precondition that `version` is still the newest; 0 where no version is stored yet.
const follows = (version) => (version === 0 ? { "If-None-Match": "*" } : { "If-Match": `"${version}"` });

const path = (name) => `/policies/${encodeURIComponent(name)}`;

async function newest(name) {
  try {
    return await get(path(name));
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}
