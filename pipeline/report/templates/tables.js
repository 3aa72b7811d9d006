// Tables: sort by a column (its header is a button), keep rows that hold some text, show some of the columns.

function cellValue(cell) {
  if (cell.dataset.value !== undefined) return Number(cell.dataset.value);
  const text = cell.textContent.trim();
  const number = Number(text.replace(/[\u2212]/g, "-").replace(/,/g, ""));
  return text !== "" && Number.isFinite(number) ? number : text;
}

// Numbers before text, and cells without a figure always last.
function compareCells(first, second, sign) {
  const [a, b] = [first, second].map(cellValue);
  const [none, other] = [a, b].map((value) => (value === "" || Number.isNaN(value) ? 2 : typeof value === "string" ? 1 : 0));
  if (none !== other) return none - other;
  if (none === 2) return 0;
  return sign * (typeof a === "string" ? a.localeCompare(b, undefined, { numeric: true }) : a - b);
}

function sortTable(table, column, header) {
  const descending = header.getAttribute("aria-sort") === "ascending";
  for (const other of header.parentElement.children) other.removeAttribute("aria-sort");
  header.setAttribute("aria-sort", descending ? "descending" : "ascending");
  for (const body of table.tBodies) {
    const rows = [...body.rows].map((row, place) => ({ row, place }));
    rows.sort((a, b) => compareCells(a.row.cells[column], b.row.cells[column], descending ? -1 : 1) || a.place - b.place);
    body.append(...rows.map(({ row }) => row));
  }
}

function connectTables(viewer) {
  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      header.querySelector("button")?.addEventListener("click", () => sortTable(table, column, header));
    });
  }
  for (const input of document.querySelectorAll("input[data-filter]")) {
    const table = document.getElementById(input.dataset.filter);
    const select = document.querySelector(`select[data-rows-of="${input.dataset.filter}"]`);
    const pick = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      for (const row of table.tBodies[0].rows) {
        const text = row.textContent.toLowerCase();
        const chosen = !select?.value || row.cells[0].textContent === select.value;
        row.hidden = !chosen || !words.every((word) => text.includes(word));
      }
    };
    input.addEventListener("input", pick);
    select?.addEventListener("change", pick);
  }
  for (const group of document.querySelectorAll("[data-columns-of]")) {
    const table = document.getElementById(group.dataset.columnsOf);
    const buttons = [...group.querySelectorAll("button")];
    const show = (wanted) => {
      for (const cell of table.querySelectorAll("[data-part]")) cell.hidden = wanted !== "" && cell.dataset.part !== wanted;
      for (const button of buttons) button.setAttribute("aria-pressed", String(button.value === wanted));
    };
    for (const button of buttons) button.addEventListener("click", () => show(button.value));
    show(buttons[0].value);
  }
  for (const button of document.querySelectorAll("button[data-slice]")) {
    button.addEventListener("click", () => {
      viewer?.set({ slice: Number(button.dataset.slice) });
      viewer?.stage.root.focus();
    });
  }
}
