// Formats figures as the server does (`api/figures.py`): few digits, a dash for an unknown value.

export const UNKNOWN = "–";

// A number with `digits` significant digits.
export function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return UNKNOWN;
  if (value === 0) return "0";
  const magnitude = Math.floor(Math.log10(Math.abs(value)));
  if (magnitude < -6) return value.toExponential(digits - 1).replace(/e-(\d)$/, "e-0$1");
  const text = fixed(value, Math.max(0, digits - 1 - magnitude));
  return text.includes(".") ? text.replace(/\.?0+$/, "") : text;
}

// A number with `decimals` decimals; rounds half to even, as Python does.
function fixed(value, decimals) {
  return new Intl.NumberFormat("en", {
    minimumFractionDigits: decimals,
    maximumFractionDigits: decimals,
    useGrouping: false,
    roundingMode: "halfEven",
  }).format(value);
}

export function percent(share) {
  if (share === null || share === undefined) return UNKNOWN;
  return `${fixed(share * 100, 1)} %`.replace(/^-0\.0/, "0.0").replace("-", "−");
}

// A time in UTC to the second, of milliseconds since 1970, a Date or an ISO text.
export function time(value) {
  if (value === null || value === undefined) return UNKNOWN;
  return `${new Date(value).toISOString().slice(0, 19).replace("T", " ")} UTC`;
}

// A time in UTC to the minute, without "UTC", for axes and tables that say it once.
export const minute = (value) => time(value).slice(0, 16);

// A duration in its two largest units.
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return UNKNOWN;
  let left = Math.round(seconds);
  const parts = [];
  for (const [unit, length] of [["d", 86_400], ["h", 3_600], ["min", 60], ["s", 1]]) {
    const count = Math.floor(left / length);
    left -= count * length;
    if (count) parts.push(`${count} ${unit}`);
  }
  return parts.slice(0, 2).join(" ") || "0 s";
}

export function size(bytes) {
  let value = bytes;
  let unit = "B";
  for (const larger of ["KiB", "MiB", "GiB", "TiB"]) {
    if (value < 1024) break;
    value /= 1024;
    unit = larger;
  }
  return `${number(value, 3)} ${unit}`;
}
