// A certified OpenID Connect provider on loopback. Usage: node server.js PORT REDIRECT_URI
// Whoever signs in as "ann" is in the group pacs-admins, "sam" in sonographers at North, anybody else in none.
import { Provider } from "oidc-provider";

const [port, redirect] = process.argv.slice(2);
const people = {
  ann: { groups: ["staff", "pacs-admins"] },
  sam: { groups: ["sonographers"], site: "North" },
};

const provider = new Provider(`http://127.0.0.1:${port}`, {
  clients: [
    {
      client_id: "sonomark",
      client_secret: "a secret that only this test knows",
      redirect_uris: [redirect],
      grant_types: ["authorization_code"],
      response_types: ["code"],
    },
  ],
  claims: { openid: ["sub"], profile: ["preferred_username", "groups", "site"] },
  pkce: { required: () => true },
  cookies: { keys: ["only for this test"] },
  findAccount: (_, id) => ({
    accountId: id,
    claims: () => ({ sub: id, preferred_username: id, ...people[id] }),
  }),
});
provider.listen(Number(port), "127.0.0.1", () => console.log("listening"));
