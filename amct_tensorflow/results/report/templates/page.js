"use strict";
(() => {
  const root = document.documentElement;
  const KEY = "amct_tensorflow report theme";

  // A browser may refuse to remember anything for a page from a file.
  const remembered = () => { try { return localStorage.getItem(KEY); } catch { return null; } };
  const remember = (theme) => { try { localStorage.setItem(KEY, theme); } catch { /* not this time */ } };

  const button = document.querySelector("button.theme");
  const dark = () => (root.dataset.theme
    ? root.dataset.theme === "dark"
    : matchMedia("(prefers-color-scheme: dark)").matches);
  const label = () => { button.textContent = dark() ? "Light theme" : "Dark theme"; };
  const saved = remembered();
  if (saved === "dark" || saved === "light") root.dataset.theme = saved;
  button.hidden = false;
  label();
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    remember(root.dataset.theme);
    label();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", label);

  const value = (row, column) => {
    const cell = row.cells[column];
    return cell.dataset.value === undefined ? cell.textContent.trim().toLowerCase() : Number(cell.dataset.value);
  };
  const isUnknown = (row, column) => row.cells[column].dataset.value === "";

  const sort = (table, column, direction) => {
    const body = table.tBodies[0];
    const rows = [...body.rows];
    rows.sort((one, other) => {
      const unknown = isUnknown(one, column) - isUnknown(other, column);
      if (unknown) return unknown; // what is not known comes last either way
      const [a, b] = [value(one, column), value(other, column)];
      return direction * (a < b ? -1 : a > b ? 1 : 0);
    });
    body.append(...rows);
    [...table.tHead.rows[0].cells].forEach((head, index) => {
      if (index === column) head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
      else head.removeAttribute("aria-sort");
    });
  };

  for (const table of document.querySelectorAll("table.sortable")) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const control = document.createElement("button");
      control.type = "button";
      control.append(...head.childNodes);
      head.append(control);
      control.addEventListener("click", () => {
        const first = head.classList.contains("right") ? "descending" : "ascending";
        const again = head.getAttribute("aria-sort") === first;
        sort(table, column, (first === "ascending") !== again ? 1 : -1);
      });
    });
  }

  for (const form of document.querySelectorAll(".filter")) {
    const input = form.querySelector("input");
    const output = form.querySelector("output");
    const rows = [...document.getElementById(input.dataset.filters).querySelectorAll("tbody tr, :scope > details")];
    const texts = rows.map((row) => (row.querySelector("summary") || row).textContent.toLowerCase());
    const apply = () => {
      const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
      let shown = 0;
      rows.forEach((row, index) => {
        row.hidden = !words.every((word) => texts[index].includes(word));
        shown += row.hidden ? 0 : 1;
      });
      output.textContent = `${shown} of ${rows.length} shown`;
    };
    form.hidden = false;
    input.addEventListener("input", apply);
    apply();
  }

  const openTarget = () => {
    const target = document.getElementById(decodeURIComponent(location.hash.slice(1)));
    if (target instanceof HTMLDetailsElement) {
      target.hidden = false;
      target.open = true;
    }
  };
  addEventListener("hashchange", openTarget);
  openTarget();
})();
