"""The labelling page itself: two pictures, four answers, undo, progress."""

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Which is better?</title>
<style nonce="NONCE">
body { font: 16px system-ui, sans-serif; margin: 1.5rem auto; max-width: 72rem; padding: 0 1rem }
h1 { font-size: 1.25rem }
progress { width: 100% }
#pair { display: flex; flex-wrap: wrap; gap: 1rem }
figure { flex: 1 1 20rem; margin: 0; text-align: center }
img { border: 1px solid #888; max-width: 100%; min-height: 10rem }
button { font: inherit; margin: .25rem; padding: .6rem 1rem }
kbd { color: #555; font-size: .8em }
#problem { color: #b00020; min-height: 1.5em }
</style>
</head>
<body data-pair="" data-answered="">
<h1>Which of the two is better?</h1>
<progress id="bar" value="0" max="1"></progress>
<p id="count" aria-live="polite"></p>
<main id="asked" hidden>
<div id="pair">
<figure><img id="left" alt="first segment"><br>
<button data-choice="first">First <kbd>1 or &larr;</kbd></button></figure>
<figure><img id="right" alt="second segment"><br>
<button data-choice="second">Second <kbd>2 or &rarr;</kbd></button></figure>
</div>
<p><button data-choice="equal">Equally good <kbd>e or &darr;</kbd></button>
<button data-choice="skip">Cannot say: skip <kbd>s</kbd></button></p>
</main>
<p id="done" hidden>All pairs are answered. Thank you.</p>
<p><button id="undo">Undo <kbd>u</kbd></button>
<button id="stop">Save and stop</button></p>
<p id="problem" role="alert"></p>
<script nonce="NONCE">
"use strict";
const get = id => document.getElementById(id);
const keys = {"1": "first", ArrowLeft: "first", "2": "second", ArrowRight: "second",
  e: "equal", ArrowDown: "equal", s: "skip"};
let pair = null, busy = true, over = false;

async function show(state) {
  pair = state.pair;
  get("bar").max = state.total;
  get("bar").value = state.answered;
  get("count").textContent = `${state.answered} of ${state.total} answered`;
  get("asked").hidden = pair === null;
  get("done").hidden = pair !== null;
  get("undo").disabled = state.answered === 0;
  const picture = number => `segment/${number}.png`;
  if (pair !== null) {
    get("left").src = picture(state.segments[0]);
    get("right").src = picture(state.segments[1]);
    // nobody may judge what is not yet to be seen
    await Promise.all([get("left").decode(), get("right").decode()]);
  }
  for (const number of state.next) new Image().src = picture(number);
  document.body.dataset.pair = pair === null ? "none" : pair;
  document.body.dataset.answered = state.answered;
}

function setBusy(now) {
  busy = now;
  for (const button of document.querySelectorAll("[data-choice]")) button.disabled = now;
}

async function ask(path, body) {
  if (over) return;
  setBusy(true);
  try {
    const options = body === undefined ? {} : {method: "POST", body: JSON.stringify(body)};
    const reply = await fetch(path, options);
    // 409: another page was faster; its state is what counts
    if (!reply.ok && reply.status !== 409) throw new Error(await reply.text());
    await show(await reply.json());
    get("problem").textContent = "";
    if (path === "stop") {
      over = true;
      get("asked").hidden = true;
      get("problem").textContent = "Saved. This page can be closed.";
      document.body.dataset.pair = "stopped";
    }
  } catch (error) {
    get("problem").textContent = `${error.message}. Is the program still running?`;
  }
  setBusy(false);
}

function choose(choice) {
  if (!busy && pair !== null) ask("answer", {pair: pair, choice: choice});
}

for (const button of document.querySelectorAll("[data-choice]"))
  button.onclick = () => choose(button.dataset.choice);
get("undo").onclick = () => { if (!busy) ask("undo", {}); };
get("stop").onclick = () => { if (!busy) ask("stop", {}); };
document.onkeydown = event => {
  if (event.ctrlKey || event.altKey || event.metaKey || event.repeat) return;
  if (event.key === "u" && !busy) ask("undo", {});
  else if (event.key in keys) { event.preventDefault(); choose(keys[event.key]); }
};
ask("state");
</script>
</body>
</html>
"""


def page(nonce: str) -> str:
    """HTML of the page, whose own style and script carry `nonce`."""
    return _PAGE.replace("NONCE", nonce)
