// The options of orval, for `make generators`. The paths are relative to the folder where orval starts.

import { resolve } from "node:path";

const input = resolve("../openapi.json");

export default {
  client: {
    input,
    output: {
      client: "fetch",
      target: resolve("client.ts"),
      baseUrl: { getBaseUrlFromSpecification: true },
    },
  },
  schemas: {
    input,
    output: { client: "zod", target: resolve("schemas.ts") },
  },
};
