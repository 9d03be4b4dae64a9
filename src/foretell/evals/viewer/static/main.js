// The page says what it is: the table of runs, or the view of samples.

import { start as startApp } from "./app.js";
import { start as startOverview } from "./overview.js";

const main = document.querySelector("main");
if (document.body.dataset.page === "view") startApp(main);
else startOverview(main);
