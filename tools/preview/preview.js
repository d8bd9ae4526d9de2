// Updates the documentation when the YAML changes and shows errors in it. Open operations stay open.
let shownVersion;
let failures = 0;

function showBox(id, role, text, colors) {
  let box = document.querySelector(`#${id}`);
  if (!text) return box?.remove();
  if (!box) {
    box = document.createElement("pre");
    box.id = id;
    box.setAttribute("role", role);
    box.tabIndex = 0;
    Object.assign(box.style, {
      position: "sticky", top: 0, zIndex: 9, margin: 0, padding: "1rem", whiteSpace: "pre-wrap",
      overflowWrap: "anywhere", font: "14px/1.5 monospace", maxHeight: "30vh", overflow: "auto", ...colors,
    });
    document.body.prepend(box);
  }
  if (box.textContent !== text) box.textContent = text;
}

function showError(error) {
  const text = error && `${error.file}:${error.line}\n${error.message}`;
  showBox("preview-error", "alert", text, { background: "#8c1d18", color: "#ffffff" });
}

function showFindings(findings) {
  const text = findings.map(({ place, text }) => `${place}\n${text}`).join("\n");
  showBox("preview-findings", "status", text, { background: "#ffe08a", color: "#1c1b1f" });
}

async function poll() {
  try {
    const { version, error, findings } = await (await fetch("/preview/state")).json();
    failures = 0;
    showBox("preview-stopped");
    showError(error);
    showFindings(findings);
    shownVersion ??= version;
    if (version !== shownVersion && window.documentation) {
      window.documentation.specActions.updateSpec(JSON.stringify(await readContract()));
      shownVersion = version;
    }
  } catch {
    // It may be started again. One failure can be a request that was canceled by leaving the page.
    if (++failures > 4) {
      shownVersion = 0; // a started preview counts from 1 again
      const text = "The preview has stopped: this page is out of date. Start it with `make preview`.";
      showBox("preview-stopped", "alert", text, { background: "#8c1d18", color: "#ffffff" });
    }
  }
  setTimeout(poll, 250);
}

poll();
