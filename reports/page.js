"use strict";
// Sorts a table by the column whose title is pressed; pressed again, the other way round.
for (const table of document.querySelectorAll("table.sortable")) {
  const titles = [...table.tHead.rows[0].cells];
  titles.forEach((title, column) => {
    title.innerHTML = "<button>" + title.innerHTML + "</button>";
    title.firstChild.addEventListener("click", () => {
      const rising = title.getAttribute("aria-sort") === "descending";
      titles.forEach((other) => other.removeAttribute("aria-sort"));
      title.setAttribute("aria-sort", rising ? "ascending" : "descending");
      const value = (row) => row.cells[column].dataset.value;
      const number = (text) => (text === "" ? -Infinity : Number(text));
      const words = [...table.tBodies[0].rows].some((row) => value(row) !== "" && isNaN(value(row)));
      const compare = words
        ? (a, b) => value(a).localeCompare(value(b))
        : (a, b) => number(value(a)) - number(value(b)) || 0;
      const sorted = [...table.tBodies[0].rows].sort((a, b) => (rising ? compare(a, b) : compare(b, a)));
      table.tBodies[0].append(...sorted);
    });
  });
}
// The same text for people and for programs.
for (const shown of document.querySelectorAll("pre[data-of]"))
  shown.textContent = document.getElementById(shown.dataset.of).textContent;
// What is folded away is printed too.
addEventListener("beforeprint", () => {
  for (const part of document.querySelectorAll("details:not(.not-printed)")) part.open = true;
});
