// Shows the contract of the server that this page came from; sign-in and "Try it out" talk to that server only.
window.addEventListener("DOMContentLoaded", () => {
  window.documentation = SwaggerUIBundle({
    url: "/api/v1/openapi.json",
    dom_id: "#documentation",
    presets: [SwaggerUIBundle.presets.apis],
    layout: "BaseLayout",
    deepLinking: true,
    filter: true,
    docExpansion: "none",
    displayOperationId: true,
    displayRequestDuration: true,
    defaultModelsExpandDepth: -1,
    persistAuthorization: true,
    tryItOutEnabled: true,
    validatorUrl: null,
  });
});
