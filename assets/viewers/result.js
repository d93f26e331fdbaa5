/* The page behind a share link: server-rendered; this only keeps an unfinished job moving and completes addresses. */
import { JobView } from "./job.js";

const live = document.querySelector("[data-live]");
if (live) new JobView(live).start();
