// The page of a dataset: tokens are counted for a model on request.

import { announce } from "../announce.js";
import { get } from "../api.js";
import { deletion } from "../deletion.js";
import { say } from "../dom.js";
import { renew } from "../live.js";

const form = document.getElementById("count");
const send = form.querySelector("button");
const error = document.getElementById("count-error");

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  send.disabled = true;
  say(error, "");
  const model = form.elements.model.value;
  try {
    const answer = await get(`/datasets/${form.dataset.dataset}/tokens?${new URLSearchParams(new FormData(form))}`);
    announce(answer.counted_at ? `The tokens for ${model} are counted.` : `The tokens for ${model} are being counted.`);
    renew();
  } catch (problem) {
    say(error, problem.message);
    renew();
  } finally {
    send.disabled = false;
  }
});
send.disabled = false; // the server sends it disabled, as it works only with this script

deletion("/datasets", () => location.assign("/dashboard/datasets"));
