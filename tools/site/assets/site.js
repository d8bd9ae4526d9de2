// Additions to the generator's script. Runs before it, in the head of each page.

// The search dialog adds its style sheet as an element, which the Content-Security-Policy forbids. Adopt it,
// with more contrast for the small text (WCAG 2.2, 1.4.3).
ShadowRoot.prototype.appendChild = function (child) {
  if (!(child instanceof HTMLStyleElement)) return Node.prototype.appendChild.call(this, child)
  const sheet = new CSSStyleSheet()
  sheet.replaceSync(`${child.textContent} :host > * { --alpha-light: 0.9; --alpha-lighter: 0.75 } :host menu { color: inherit }`)
  this.adoptedStyleSheets = [...this.adoptedStyleSheets, sheet]
  return child
}

// A table that is wider than the screen can be scrolled with the keyboard.
addEventListener('load', () => {
  for (const region of document.querySelectorAll('.md-typeset__scrollwrap')) region.tabIndex = 0
})
