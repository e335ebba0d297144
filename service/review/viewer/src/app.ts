import { startDrafts } from "./drafts";
import { listen } from "./keys";
import { startMenus } from "./menus";
import { startRows } from "./rows";

listen();
startMenus();
startRows();
startDrafts();
document.querySelector<HTMLElement>(".error-summary")?.focus();
