/** The service that serves this page, if one does: `galip serve`. */

/** What the service tells the page. */
export interface ServiceConfig {
  /** Whether it asks for an API key. */
  readonly key: boolean;
  /** The SHA-256 of the checkpoint. */
  readonly source: string;
  /** Whether it hands out the bundle, so that this tab can draw. */
  readonly tab: boolean;
  /** The most pictures in one request. */
  readonly steps: number;
}

/** The service's model, as it lists it. */
export interface ServedModel {
  readonly id: string;
  readonly size: string;
  readonly device: string;
  readonly precision: string;
  readonly digest: string | null;
}

const KINDS: Record<number, string> = { 429: "Busy", 503: "Not ready", 504: "Too late" };

/** What the service did not do, in its own words. */
export class ServiceError extends Error {
  constructor(name: string, message: string) {
    super(message);
    this.name = name;
  }
}

/** Return what the service of this page says; undefined where a file server hosts the page. */
export async function findService(): Promise<ServiceConfig | undefined> {
  const response = await fetch("service.json").catch(() => undefined);
  if (!response?.ok) return undefined;
  const config = (await response.json().catch(() => ({}))) as Partial<ServiceConfig> & { draws?: string };
  return config.draws === "service" ? (config as ServiceConfig) : undefined;
}

/** Ask the service; with `body`, by POST. Throws ServiceError. */
export async function ask(path: string, key: string, body?: unknown): Promise<Response> {
  const headers = {
    ...(key ? { Authorization: `Bearer ${key}` } : {}),
    ...(body === undefined ? {} : { "Content-Type": "application/json" }),
  };
  const request = body === undefined ? { headers } : { headers, method: "POST", body: JSON.stringify(body) };
  let response: Response;
  try {
    response = await fetch(path, request);
  } catch {
    throw new ServiceError("No answer", "the server cannot be reached; is it still running?");
  }
  if (response.ok) return response;
  if (response.status === 401) throw notAllowed(key);
  const answer = (await response.json().catch(() => undefined)) as
    { error?: { message?: string } } | undefined;
  const message = answer?.error?.message ?? `the server answered ${response.status}`;
  const seconds = response.headers.get("Retry-After");
  const kind = KINDS[response.status] ?? (response.status < 500 ? "Refused" : "The server failed");
  throw new ServiceError(kind, seconds ? `${message}. Try again in ${seconds} s` : message);
}

/** The service's words for this are about headers, which are not the visitor's business. */
function notAllowed(key: string): ServiceError {
  const text = key ? "the server does not know this API key" : "the server asks for an API key";
  return new ServiceError("Not allowed", text);
}

/** Return the model that the service serves. Throws ServiceError. */
export async function servedModel(key: string): Promise<ServedModel> {
  const { data } = (await (await ask("v1/models", key)).json()) as { data: ServedModel[] };
  return data[0]!;
}
