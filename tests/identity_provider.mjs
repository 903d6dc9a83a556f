// An identity provider (npm oidc-provider) on a free port. It prints its issuer; each line on standard input gives it new keys, and is printed
// when they are published.
import { generateKeyPairSync, randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { createInterface } from "node:readline";
import { Provider } from "oidc-provider";

// Its advice for production is for nobody here, and standard output for the tests alone.
console.info = console.error;

const key = () => {
  const { privateKey } = generateKeyPairSync("rsa", { modulusLength: 2048 });
  return { ...privateKey.export({ format: "jwk" }), kid: randomUUID(), use: "sig", alg: "RS256" };
};

const provider = (issuer) =>
  new Provider(issuer, {
    jwks: { keys: [key()] },
    clients: [{ client_id: "acme", client_secret: "secret", grant_types: ["client_credentials"], redirect_uris: [], response_types: [] }],
    // What csrd needs beside sub and exp.
    extraTokenClaims: () => ({ zones: ["demo"] }),
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => "https://csrd.example",
        getResourceServerInfo: () => ({ audience: "csrd", scope: "custom_csrs:read custom_csrs:write", accessTokenFormat: "jwt" }),
      },
    },
  }).callback();

let answer;
const server = createServer((request, response) => answer(request, response));
server.listen(0, "127.0.0.1", () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  answer = provider(issuer);
  console.log(issuer);
  const lines = createInterface({ input: process.stdin });
  lines.on("line", () => {
    answer = provider(issuer);
    console.log("rotated");
  });
  lines.on("close", () => process.exit());
});
