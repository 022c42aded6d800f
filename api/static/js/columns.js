// Reads the mapping of a file's columns as it is written in one line: "prompt=question, completion=data.answer".

export class InvalidColumns extends Error {}

// Returns the mapping as JSON, null without one. A name that has a comma needs the JSON itself.
export function parseColumns(line) {
  const text = line.trim();
  if (!text || text.startsWith("{")) return text || null;
  const sources = {};
  for (const part of text.split(",")) {
    const [key, source] = split(part);
    if (!key || !source) throw new InvalidColumns(`“${part.trim()}”: expected KEY=NAME, such as prompt=question`);
    if (Object.hasOwn(sources, key)) throw new InvalidColumns(`${key} is given twice`);
    sources[key] = source;
  }
  return JSON.stringify(sources);
}

function split(part) {
  const mark = part.indexOf("=");
  return mark < 0 ? [] : [part.slice(0, mark).trim(), part.slice(mark + 1).trim()];
}
