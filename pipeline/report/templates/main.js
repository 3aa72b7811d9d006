// What runs when the page is open. Everything is in the page itself; nothing is ever asked of a network.

function openViewer() {
  const root = document.getElementById("viewer");
  if (!root) return null;
  if (typeof DecompressionStream === "undefined") {
    const status = root.querySelector("#viewer-status");
    status.textContent = "This browser cannot unpack the slices. It takes Chrome or Edge 80, Firefox 113, Safari 16.4 or later; "
      + "tables and charts are complete.";
    status.classList.add("problem");
    return null;
  }
  const viewer = new Viewer(root, JSON.parse(document.getElementById("viewer-data").textContent));
  connectGestures(viewer);
  return viewer;
}

function connectPage(viewer) {
  connectTables(viewer);
  for (const button of document.querySelectorAll("button[data-copy]")) {
    button.addEventListener("click", async () => {
      try {
        await navigator.clipboard.writeText(document.getElementById(button.dataset.copy).textContent);
        button.textContent = "Copied";
      } catch {
        getSelection().selectAllChildren(document.getElementById(button.dataset.copy)); // to be copied by hand
      }
    });
  }
  // On paper everything that is folded away is open.
  let folded = [];
  addEventListener("beforeprint", () => {
    folded = [...document.querySelectorAll("details:not([open]):not(.screen-only)")];
    for (const details of folded) details.open = true;
  });
  addEventListener("afterprint", () => folded.forEach((details) => { details.open = false; }));
}

connectPage(openViewer());
