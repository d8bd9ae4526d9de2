// Shows the contract anew when the YAML was saved, and what is wrong with it; what is open stays open.
let shown;

function show(mistake) {
  let box = document.querySelector("#mistake");
  if (!mistake) return box?.remove();
  if (!box) {
    box = document.createElement("pre");
    box.id = "mistake";
    box.setAttribute("role", "alert");
    Object.assign(box.style, {
      position: "sticky", top: 0, zIndex: 9, margin: 0, padding: "1rem", whiteSpace: "pre-wrap",
      background: "#8c1d18", color: "#ffffff",
    });
    document.body.prepend(box);
  }
  const text = `${mistake.file}:${mistake.line}\n${mistake.message}`;
  if (box.textContent !== text) box.textContent = text;
}

async function look() {
  try {
    const { version, mistake } = await (await fetch("/preview/state")).json();
    show(mistake);
    shown ??= version;
    if (version !== shown && window.documentation) {
      window.documentation.specActions.updateSpec(JSON.stringify(await readContract()));
      shown = version;
    }
  } catch {
    // The preview was stopped; it may come back.
  }
  setTimeout(look, 250);
}

look();
