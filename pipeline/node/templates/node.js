// Updates the page every few seconds, unless somebody is using it. Without scripts, reload the page.
const live = () => document.querySelector("[data-live]");
const busy = () => document.hidden || live().contains(document.activeElement) || String(getSelection());
setInterval(async () => {
  if (!live() || busy()) return;
  try {
    const answer = await fetch(location.href);
    if (!answer.ok) return;
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    for (const place of ["[data-live]", ".health", ".acts"]) {
      const [now, then] = [fresh.querySelector(place), document.querySelector(place)];
      if (now && then && now.innerHTML !== then.innerHTML && !then.contains(document.activeElement) && !then.querySelector("details[open]")) then.replaceWith(now);
    }
  } catch { /* the node has stopped: leave the page as it is */ }
}, 3000);
