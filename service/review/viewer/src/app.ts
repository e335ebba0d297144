import { startDrafts } from "./drafts";
import { listen } from "./keys";
import { startLive } from "./live";
import { startMenus } from "./menus";
import { startRows } from "./rows";

listen();
startMenus();
startRows();
startLive();
startDrafts();
document.querySelector<HTMLElement>(".error-summary")?.focus();
