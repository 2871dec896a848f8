"use strict";
// Sorts a table by a column: its headings become buttons. Without it the tables are read as they are.
for (const table of document.querySelectorAll("table.sortable")) {
  const headings = [...table.tHead.rows[0].cells];
  const original = [...table.tBodies];
  const strong = Number(table.dataset.strong || 0);
  const cellOf = (body, column) => {
    const row = column === 0 ? body.rows[0] : body.rows[Math.min(strong, body.rows.length - 1)];
    const first = column !== 0 && row !== body.rows[0] ? column - 1 : column;
    return row.cells[first].innerText.split("\n")[0].trim();
  };
  const numberOf = (text) => {
    const found = text.replace(/[,#<\s]/g, "").replace("\u2212", "-").match(/^[+-]?\d*\.?\d+/);
    return found ? Number(found[0]) : null;
  };
  const compare = (a, b, sign) => {
    const [x, y] = [numberOf(a), numberOf(b)];
    if (x !== null && y !== null && x !== y) return sign * (x - y);
    if ((x === null) !== (y === null)) return x === null ? 1 : -1;
    return sign * a.localeCompare(b, "en", { numeric: true });
  };
  headings.forEach((heading, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    const text = heading.classList.contains("text");
    button.addEventListener("click", () => {
      const was = heading.getAttribute("aria-sort");
      // Numbers start with the largest, words with the first of the alphabet.
      const next = { null: text ? "ascending" : "descending" }[was] ?? (was === "ascending" ? "descending" : "ascending");
      headings.forEach((other) => other.removeAttribute("aria-sort"));
      heading.setAttribute("aria-sort", next);
      const sign = next === "ascending" ? 1 : -1;
      const order = original.map((body) => [cellOf(body, column), body]);
      order.sort((a, b) => {
        const texts = text ? sign * a[0].localeCompare(b[0], "en", { numeric: true }) : 0;
        return text ? texts : compare(a[0], b[0], sign);
      });
      order.forEach(([, body]) => table.append(body));
    });
  });
}
