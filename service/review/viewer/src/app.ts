import { startDrafts } from "./drafts";
import { listen } from "./keys";
import { startLive } from "./live";
import { startMenus } from "./menus";
import { startRows } from "./rows";
import { startRulebook } from "./rulebook";

listen();
startMenus();
startRows();
startLive();
startDrafts();
startRulebook();
document.querySelector<HTMLElement>(".error-summary")?.focus();
