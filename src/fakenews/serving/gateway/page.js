// What Gradio does not do: examples, a sign of being busy, and plain words for lost connections.
(() => {
  const LOST = "The server cannot be reached. Check your connection, and try again.";
  const BUSY = "Many people are asking just now. Try again in a moment.";
  const LARGE = "The file is too large.";
  const OFTEN = "You have asked often in a short time.";
  const again = (seconds) => ` Try again in ${seconds} second${seconds === 1 ? "" : "s"}.`;
  const KEPT = "fakenews-text";
  let lost = false;
  let refusal = null;
  const find = (selector) => document.querySelector(selector);

  const setBusy = (busy) => {
    for (const selector of ["#answer", "#check"]) {
      find(selector)?.setAttribute("aria-busy", String(busy));
    }
  };

  const tell = (message) => {
    const place = find("#lost");
    if (!place) return;
    place.textContent = message;
    place.hidden = !message;
    if (message) place.scrollIntoView({ block: "nearest" });
  };

  const ask = () => {
    tell("");
    setBusy(true);
  };

  const write = (box, text) => {
    box.value = text;
    box.dispatchEvent(new Event("input", { bubbles: true }));
  };

  document.addEventListener("click", (event) => {
    const example = event.target.closest?.(".example");
    const box = find("#text textarea");
    if (example && box) {
      write(box, example.textContent);
      // Gradio takes the new text over in its next turn.
      setTimeout(() => find("#check")?.click());
    }
    if (event.target.closest?.("#check")) ask();
  }, true);

  document.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && event.target.matches?.("#text textarea")) {
      ask();
    }
  }, true);

  // Why the server has refused to answer at all, which Gradio does not tell.
  const plainly = { too_many_requests: OFTEN, body_too_large: LARGE };
  const send = window.fetch;
  window.fetch = async (...request) => {
    refusal = null;
    const answer = await send(...request);
    const { error } = answer.ok ? {} : await answer.clone().json().catch(() => ({}));
    if (error) {
      const wait = Number(answer.headers.get("retry-after"));
      const said = error.message.charAt(0).toUpperCase() + error.message.slice(1);
      refusal = (plainly[error.code] ?? `${said}.`) + (wait ? again(wait) : "");
      tell(refusal);
      setBusy(false);
    }
    return answer;
  };

  // Of Gradio's own messages only those can come that say that it was not answered.
  const hear = (toast) => {
    const said = toast.textContent ?? "";
    const guess = /busy|queue is full/i.test(said) ? BUSY : /size|large/i.test(said) ? LARGE : LOST;
    const message = refusal ?? guess;
    lost ||= message === LOST;
    tell(message);
    setBusy(false);
  };

  // When the server is there again, Gradio loads the page anew.
  addEventListener("pagehide", () => {
    const typed = find("#text textarea")?.value;
    if (lost && typed) sessionStorage.setItem(KEPT, typed);
  });

  const settle = (box) => {
    box.dir = "auto";
    const kept = box.closest("#text") && sessionStorage.getItem(KEPT);
    if (!kept) return;
    sessionStorage.removeItem(KEPT);
    setTimeout(() => write(box, kept));
  };

  new MutationObserver((changes) => {
    for (const { target, addedNodes } of changes) {
      const element = target.nodeType === Node.ELEMENT_NODE ? target : target.parentElement;
      if (element?.closest("#verdict [aria-live]")) setBusy(false);
      for (const node of addedNodes) {
        if (node.nodeType !== Node.ELEMENT_NODE) continue;
        const toast = node.matches(".toast-body") ? node : node.querySelector(".toast-body");
        if (toast) hear(toast);
        node.querySelectorAll("textarea").forEach(settle);
      }
    }
  }).observe(document, {
    attributeFilter: ["data-answer"],
    childList: true,
    subtree: true,
  });
})();
