"use strict";
// Every text of a file, class or server is set as text, never as markup.
const byId = (id) => document.getElementById(id);
const AT_ONCE = 4;
const TRIES = 20;
const waiting = [];
let running = 0, done = 0, total = 0, facts = { max_bytes: Infinity };

function element(parent, tag, text = "", className = "") {
  const made = document.createElement(tag);
  made.textContent = text;
  made.className = className;
  parent.append(made);
  return made;
}

function show(card, answer) {
  if (answer.error) {
    element(card, "p", answer.error, "error");
    return;
  }
  if (answer.attention) {
    const picture = element(card.querySelector(".pictures"), "img");
    picture.src = answer.attention;
    picture.alt = "What the network saw, in grey and red where it looked";
  }
  const all = [{ class: answer.class, score: answer.score }, ...answer.next_best];
  all.forEach((item, number) => {
    const line = element(card, "div", "", number ? "class" : "class best");
    const percent = facts.scores === "probabilities";
    // A diverged model gives numbers that JSON lacks.
    const score = item.score === null ? "–" : percent ? `${(100 * item.score).toFixed(1)} %` : item.score.toFixed(3);
    element(line, "span", score, "score");
    element(line, "span", item.class);
    if (percent) {
      const bar = element(element(card, "div", "", "bar"), "div");
      bar.style.width = `${100 * Math.max(0, Math.min(1, item.score))}%`;
    }
  });
}

async function ask(file, explain) {
  if (file.size > facts.max_bytes)
    return { error: `has more than ${facts.max_bytes / 1e6} MB` };
  for (let attempt = 1; ; attempt++) {
    try {
      const form = new FormData();
      form.append("image", file);
      const response = await fetch(explain ? "classify?explain=1" : "classify",
        { method: "POST", body: form });
      if (response.status === 503 && attempt < TRIES) {
        await new Promise((resolve) => setTimeout(resolve, 200 * attempt));
        continue;
      }
      const answer = await response.json();
      return answer.images ? answer.images[0] : answer;
    } catch (error) {
      if (attempt < 3) continue;
      return { error: "the server does not answer; is it still running?" };
    }
  }
}

async function work() {
  if (running >= AT_ONCE || !waiting.length) return;
  running++;
  const { file, card, explain } = waiting.shift();
  show(card, await ask(file, explain));
  card.removeAttribute("aria-busy");
  running--;
  done++;
  byId("status").textContent = `${done} of ${total} images`;
  work();
}

function add(files) {
  for (const file of files) {
    const card = document.createElement("li");
    card.setAttribute("aria-busy", "true");
    const picture = element(element(card, "div", "", "pictures"), "img");
    picture.alt = "";
    picture.onload = picture.onerror = () => URL.revokeObjectURL(picture.src);
    picture.src = URL.createObjectURL(file);
    element(card, "p", file.name, "name");
    byId("results").prepend(card);
    waiting.push({ file, card, explain: byId("explain").checked });
    total++;
    work();
  }
}

byId("files").addEventListener("change", (event) => {
  add(event.target.files);
  event.target.value = "";
});
const drop = byId("drop");
for (const type of ["dragover", "dragleave", "drop"])
  document.addEventListener(type, (event) => {
    event.preventDefault();
    drop.classList.toggle("over", type === "dragover");
    if (type === "drop") add(event.dataTransfer.files);
  });
fetch("model").then((response) => response.json()).then((told) => {
  facts = told;
  byId("model").textContent = `${told.models.join(", ")}: ${told.classes.length} classes. ` +
    `Scores are ${told.scores}.`;
  byId("options").hidden = !told.explains;
});
