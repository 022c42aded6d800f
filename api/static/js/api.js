// Calls of the REST interface: JSON in and out; a problem+json answer is thrown as `Problem`.

export class Problem extends Error {
  // `errors`: [{field, message}], as in the answer. `retryAfterSeconds`: null without that header.
  constructor(status, title, detail, errors, retryAfterSeconds = null) {
    super(detail || title);
    this.name = "Problem";
    this.status = status;
    this.title = title;
    this.errors = errors;
    this.retryAfterSeconds = retryAfterSeconds;
  }
}

// Returns the answer's JSON, null where it has none. The browser sends ETags by itself, so unchanged answers are 304.
export async function call(method, path, body, { headers = {}, signal } = {}) {
  const options = { method, signal, cache: "no-cache", credentials: "same-origin", headers: { Accept: "application/json", ...headers } };
  if (body instanceof FormData) {
    options.body = body;
  } else if (body !== undefined) {
    options.body = JSON.stringify(body);
    options.headers["Content-Type"] = "application/json";
  }
  let response;
  try {
    response = await fetch(path, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem(0, "No answer", "The service cannot be reached.", []);
  }
  if (response.status === 204) return null;
  const text = await response.text();
  let answer = null;
  try {
    answer = text ? JSON.parse(text) : null;
  } catch {
    throw new Problem(response.status, "Not JSON", `The answer to ${method} ${path} is not JSON.`, []);
  }
  if (!response.ok) {
    const wait = Number(response.headers.get("Retry-After")) || null;
    throw new Problem(response.status, answer?.title ?? response.statusText, answer?.detail, answer?.errors ?? [], wait);
  }
  return answer;
}

export const get = (path, options) => call("GET", path, undefined, options);
export const post = (path, body, options) => call("POST", path, body, options);
export const put = (path, body, options) => call("PUT", path, body, options);
export const remove = (path, options) => call("DELETE", path, undefined, options);
