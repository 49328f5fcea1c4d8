// From disk a page may not fetch another one, so the search lists its results there without their summaries.
if (window.location.protocol === "file:" && typeof DOCUMENTATION_OPTIONS !== "undefined") {
  DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
}

const NUMBER = /^[-+−]?[£$€]?[\d,.]+(e[-+]?\d+)?\s?[%×]?$/;
const NOTHING = /^(|nan|NaN|NaT|None|<NA>|–|—)$/;

// What CSS cannot see: which bold word a box begins with, and which columns of a table hold numbers.
document.addEventListener("DOMContentLoaded", () => {
  for (const word of document.querySelectorAll("blockquote p:first-child > strong:first-child")) {
    if (word.textContent.startsWith("Pitfall")) word.closest("blockquote").classList.add("pitfall");
  }
  for (const table of document.querySelectorAll("table.dataframe")) {
    const rows = [...table.tBodies].flatMap((body) => [...body.rows]);
    const heads = table.tHead ? [...table.tHead.rows] : [];
    const cells = (row) => row.querySelectorAll("td");
    for (let column = 0; rows.length && column < cells(rows[0]).length; column += 1) {
      const texts = rows.map((row) => cells(row)[column]?.textContent.trim() ?? "");
      if (!texts.some((text) => NUMBER.test(text))) continue;
      if (!texts.every((text) => NUMBER.test(text) || NOTHING.test(text))) continue;
      rows.forEach((row) => cells(row)[column]?.classList.add("number"));
      // Columns are counted from the right: row labels stand on the left of the cells, and may be several.
      const fromRight = cells(rows[0]).length - column;
      heads.forEach((row) => row.cells[row.cells.length - fromRight]?.classList.add("number"));
    }
  }
});
