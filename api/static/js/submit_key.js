// The Idempotency-Key of a submission: the same for the same body until it is submitted, so that a double click, a retry
// after a lost connection, or one after a reload makes one job.

const PLACE = "greentune.submit.key";

export function keyFor(body) {
  const text = JSON.stringify(body);
  const kept = JSON.parse(sessionStorage.getItem(PLACE) ?? "null");
  if (kept?.text === text) return kept.key;
  // Not crypto.randomUUID, which exists only over HTTPS and on localhost.
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  const key = `form-${[...bytes].map((byte) => byte.toString(16).padStart(2, "0")).join("")}`;
  sessionStorage.setItem(PLACE, JSON.stringify({ text, key }));
  return key;
}

export const forgetKey = () => sessionStorage.removeItem(PLACE);
