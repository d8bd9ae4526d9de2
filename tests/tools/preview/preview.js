// Updates the documentation when the YAML changes and shows errors in it. Open operations stay open.
let shownVersion;

function showError(error) {
  let box = document.querySelector("#preview-error");
  if (!error) return box?.remove();
  if (!box) {
    box = document.createElement("pre");
    box.id = "preview-error";
    box.setAttribute("role", "alert");
    Object.assign(box.style, {
      position: "sticky", top: 0, zIndex: 9, margin: 0, padding: "1rem", whiteSpace: "pre-wrap",
      background: "#8c1d18", color: "#ffffff",
    });
    document.body.prepend(box);
  }
  const text = `${error.file}:${error.line}\n${error.message}`;
  if (box.textContent !== text) box.textContent = text;
}

async function poll() {
  try {
    const { version, error } = await (await fetch("/preview/state")).json();
    showError(error);
    shownVersion ??= version;
    if (version !== shownVersion && window.documentation) {
      window.documentation.specActions.updateSpec(JSON.stringify(await readContract()));
      shownVersion = version;
    }
  } catch {
    // The preview does not respond. It may be started again.
  }
  setTimeout(poll, 250);
}

poll();
