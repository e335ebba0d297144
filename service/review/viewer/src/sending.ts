/** What a press sends: never twice, and again when a session that had ended is back. */

/** What became of it: the page is being left, the session has ended, or the page stays and says why. */
export type Fate = "leaving" | "signed out" | "stays";

/** `send`, deaf while it is at it: a second press cannot answer the page that comes next. */
export function sentOnce<Given extends unknown[]>(send: (...given: Given) => Promise<Fate>): (...given: Given) => Promise<void> {
  let busy = false;
  let unsent: Given | null = null; // what waits for a session
  const press = async (...given: Given): Promise<void> => {
    if (busy) return;
    busy = true;
    const fate = await send(...given);
    busy = fate === "leaving"; // until the next page is there
    if (fate === "signed out") unsent = given;
  };
  document.addEventListener("sonomark:signed-in", () => {
    const again = unsent;
    unsent = null;
    if (again) void press(...again);
  });
  return press;
}
