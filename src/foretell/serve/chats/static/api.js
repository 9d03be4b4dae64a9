// Calls to the server. What changes something carries the page's token; errors come in OpenAI's form.

const token = document.querySelector('meta[name="foretell-token"]').content;

export class CallError extends Error {
  // status: 0 where the server was not reached.
  constructor(message, status = 0, code = null) {
    super(message);
    this.status = status;
    this.code = code;
  }
}

export async function call(method, path, body, { signal } = {}) {
  const headers = { accept: "application/json" };
  if (method !== "GET") headers["x-foretell-token"] = token;
  const raw = body instanceof Blob;
  if (body !== undefined) headers["content-type"] = raw ? body.type || "application/octet-stream" : "application/json";
  let response;
  try {
    response = await fetch(`/chat/${path}`, {
      method, headers, signal,
      body: body === undefined ? undefined : raw ? body : JSON.stringify(body),
      credentials: "same-origin",
      cache: "no-store",
      redirect: "error",
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new CallError("The server cannot be reached. Nothing is lost: try again when it is back.");
  }
  if (response.status === 204) return null;
  let answer = null;
  try {
    answer = await response.json();
  } catch {
    if (response.ok) throw new CallError("The server's answer cannot be read. Try again.", response.status);
  }
  if (response.ok) return answer;
  const told = answer?.error?.message ?? `The server answered with status ${response.status}.`;
  const error = new CallError(told, response.status, answer?.error?.code ?? null);
  if (error.status === 401) document.dispatchEvent(new CustomEvent("logged-out"));
  throw error;
}

export const get = (path, options) => call("GET", path, undefined, options);
export const post = (path, body, options) => call("POST", path, body, options);
export const patch = (path, body) => call("PATCH", path, body);
export const remove = (path) => call("DELETE", path);

// Follows a reply that the server writes, over lost connections, until it is done. Returns a function that leaves it.
// told: {blocks(changed, count, tokens), done(message), lost(), back(), gone()}
export function follow(id, told) {
  const address = `/chat/messages/${encodeURIComponent(id)}/stream`;
  let source = null, timer = 0, wait = 500, left = false, away = false;
  const open = () => {
    source = new EventSource(address);
    source.onopen = () => {
      wait = 500;
      if (away) told.back();
      away = false;
    };
    source.onmessage = (event) => {
      const said = JSON.parse(event.data);
      if (said.blocks) told.blocks(said.blocks, said.count, said.tokens ?? null);
      if (said.done) {
        leave();
        told.done(said.done);
      }
    };
    source.onerror = () => {
      // The browser's own retries end for good at the first answer that is no stream, as of a server that is starting.
      source.close();
      if (left) return;
      if (!away) told.lost();
      away = true;
      timer = setTimeout(again, wait);
      wait = Math.min(wait * 2, 8000);
    };
  };
  const again = async () => {
    // An event source does not tell why it failed. There is no way back to a message that was deleted meanwhile.
    const look = new AbortController();
    try {
      const { status } = await fetch(address, { signal: look.signal, cache: "no-store" });
      look.abort();
      if (!left && (status === 404 || status === 401)) return told.gone();
    } catch {
      // The server is still away.
    }
    if (!left) open();
  };
  const now = () => {
    if (!away || left) return;
    clearTimeout(timer);
    wait = 500;
    again();
  };
  const leave = () => {
    left = true;
    clearTimeout(timer);
    removeEventListener("online", now);
    source?.close();
  };
  addEventListener("online", now);
  open();
  return leave;
}
