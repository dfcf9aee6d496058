/**
 * The errors that galip raises on purpose, with the names and exit codes of the Python runtime.
 *
 *     GalipError                exit code 1   base
 *     ├── UsageError            exit code 2   an argument, value, shape or prompt cannot be used
 *     ├── QualityGateFailed     exit code 3   a result is not good enough
 *     ├── FileRefused           exit code 4   a file is missing, broken, altered, unsafe or foreign
 *     └── ProviderUnavailable   exit code 5   the requested device or its package is not available here
 *
 * A message says what is wrong, what would be right, and what to do about it.
 */

/** Base of all errors raised on purpose; its message is written for the user. */
export class GalipError extends Error {
  override name = "GalipError";
  /** What a command ends with. */
  readonly exitCode: number = 1;
}

/** An argument, value, shape or prompt that cannot be used. */
export class UsageError extends GalipError {
  override name = "UsageError";
  override readonly exitCode = 2;
}

/** Numbers that are not finite, or too far from the model's. */
export class QualityGateFailed extends GalipError {
  override name = "QualityGateFailed";
  override readonly exitCode = 3;
}

/** A file or folder that is missing, broken, altered, unsafe or of another kind. */
export class FileRefused extends GalipError {
  override name = "FileRefused";
  override readonly exitCode = 4;
}

/** A device, a provider or its package that is not available here. */
export class ProviderUnavailable extends GalipError {
  override name = "ProviderUnavailable";
  override readonly exitCode = 5;
}

const KINDS = { GalipError, UsageError, QualityGateFailed, FileRefused, ProviderUnavailable };

/** An error as a worker sends it. */
export interface SentError {
  name: string;
  message: string;
}

/** Return what `receiveError` makes the same error of. */
export function sendError(error: unknown): SentError {
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  return { name, message };
}

/** Return the error of the same class. */
export function receiveError({ name, message }: SentError): Error {
  if (name === "AbortError") return new DOMException(message, name);
  const kind = KINDS[name as keyof typeof KINDS];
  return kind ? new kind(message) : Object.assign(new Error(message), { name });
}

/** Return the beginning of a value for an error message. */
export function shortly(value: unknown): string {
  try {
    const text =
      typeof value === "bigint"
        ? `${value}`
        : typeof value === "string"
          ? JSON.stringify(value)
          : String(value);
    return text.slice(0, 80);
  } catch {
    return `a value of type ${typeof value}`; // an object may throw anything
  }
}

/** Return the message of anything that was thrown. */
export function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
