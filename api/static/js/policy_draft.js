// The policy that is being edited, with the version that it started from; kept over a reload of the tab.

import { same } from "./policy_paths.js";

// `stored`: {name, version, body}; version 0 is a policy that is not stored yet, and its body an example.
// Listeners are called with the source of the change: "form", "kind", "steps", "json", "name" or "load".
export function openDraft(stored) {
  const key = `policy ${stored.version ? stored.name : "(new)"}`;
  const listeners = [];
  const kept = keptDraft(key);
  let base = kept?.base ?? stored;
  let { body, text, name } = kept ?? { body: base.body, text: null, name: stored.name };

  const isChanged = () => text !== null || !same(body, base.body) || name !== base.name;

  function tell(source) {
    try {
      if (isChanged()) sessionStorage.setItem(key, JSON.stringify({ base, body, text, name }));
      else sessionStorage.removeItem(key);
    } catch (error) {
      console.info("the draft is not kept", String(error)); // storage is full or forbidden: the page works without
    }
    for (const listener of listeners) listener(source);
  }

  return {
    get base() {
      return base;
    },
    get body() {
      return body;
    },
    // Text of the JSON view while it cannot be parsed; null otherwise.
    get text() {
      return text;
    },
    get name() {
      return name;
    },
    wasKept: kept !== null,
    isChanged,
    onChange: (listener) => listeners.push(listener),
    change(next, source) {
      [body, text] = [next, null];
      tell(source);
    },
    rename(next) {
      name = next;
      tell("name");
    },
    unreadable(written) {
      text = written;
      tell("json");
    },
    // Takes another stored version as the base, and `next` as the body.
    rebase(version, next = body) {
      [base, body, text, name] = [version, next, null, version.name];
      tell("load");
    },
  };
}

function keptDraft(key) {
  try {
    const kept = JSON.parse(sessionStorage.getItem(key));
    return kept?.base && kept.body ? kept : null;
  } catch {
    return null; // of another release, or forbidden
  }
}
