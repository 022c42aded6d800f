// The policy that is being edited, with the version that it started from; kept over a reload of the tab.

import { same } from "./paths.js";

// `stored`: {name, version, body}; version 0 is a policy that is not stored yet, and its body an example.
// Listeners are called with the source of the change: "form", "kind", "steps", "json", "name" or "load".
export function openDraft(stored) {
  const key = `policy ${stored.version ? stored.name : "(new)"}`;
  const listeners = [];
  const kept = keptDraft(key);

  function tell(source) {
    const { base, body, text, name } = draft;
    try {
      if (draft.isChanged()) sessionStorage.setItem(key, JSON.stringify({ base, body, text, name }));
      else sessionStorage.removeItem(key);
    } catch (error) {
      console.info("the draft is not kept", String(error)); // storage is full or forbidden: the page works without
    }
    for (const listener of listeners) listener(source);
  }

  const draft = {
    base: kept?.base ?? stored,
    body: (kept ?? stored).body,
    text: kept?.text ?? null, // of the JSON view while it cannot be parsed
    name: (kept ?? stored).name,
    wasKept: kept !== null,
    isChanged: () => draft.text !== null || !same(draft.body, draft.base.body) || draft.name !== draft.base.name,
    onChange: (listener) => listeners.push(listener),
    change(body, source) {
      Object.assign(draft, { body, text: null });
      tell(source);
    },
    rename(name) {
      draft.name = name;
      tell("name");
    },
    unreadable(text) {
      draft.text = text;
      tell("json");
    },
    // Takes another stored version as the base, and `body` as the body.
    rebase(base, body = draft.body) {
      Object.assign(draft, { base, body, text: null, name: base.name });
      tell("load");
    },
  };
  return draft;
}

function keptDraft(key) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(key));
    return kept?.base && kept.body ? kept : null;
  } catch {
    return null; // of another release, or forbidden
  }
}
