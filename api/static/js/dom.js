// Builds elements, and sets what many modules set alike.

// Returns a new element with properties such as `className`, and children: elements or texts.
export function element(tag, properties = {}, ...children) {
  const made = Object.assign(document.createElement(tag), properties);
  made.append(...children);
  return made;
}

export const header = (scope, textContent, className = "") => element("th", { scope, textContent, className });

// Returns a frame in which a wide table scrolls, by the keyboard too.
export function wide(label, table) {
  return element("div", { className: "wide", tabIndex: 0, role: "region", ariaLabel: label }, table);
}

// Shows a text, and hides its place while it is empty.
export function say(place, text) {
  place.textContent = text;
  place.hidden = !text;
}

export function setFlag(control, attribute, is) {
  if (is) control.setAttribute(attribute, "true");
  else control.removeAttribute(attribute);
}
