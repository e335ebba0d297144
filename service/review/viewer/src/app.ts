import { startChosen } from "./chosen";
import { startDrafts } from "./drafts";
import { listen } from "./keys";
import { startLive } from "./live";
import { startMenus } from "./menus";
import { startRows } from "./rows";
import { startRulebook } from "./rulebook";
import { startSession } from "./session";

listen();
startMenus();
startSession();
startRows();
startLive();
startDrafts();
startRulebook();
startChosen();
document.querySelector<HTMLElement>(".error-summary")?.focus();
