/** What the package exports everywhere. */

export { type AnimationOptions, encodeAnimation } from "./animation.js";
export type { Dimensions } from "./bundle/manifest.js";
export type { Progress } from "./bundle/reading.js";
export type { Info } from "./engine.js";
export { FileRefused, GalipError, ProviderUnavailable, QualityGateFailed, UsageError } from "./errors.js";
export { lerp, slerp } from "./interpolation.js";
export {
  type CallOptions,
  type DrawOptions,
  type GenerateOptions,
  type InterpolateOptions,
  Model,
} from "./model.js";
export { MAX_SEED, type Seed, seedSeries } from "./noise.js";
export type { LoadOptions } from "./options.js";
export { encodePng, type Picture } from "./picture.js";
export type { SelfCheck } from "./runners/selfCheck.js";
export { MAX_PROMPT_LENGTH } from "./text/prompts.js";
export { VERSION } from "./version.js";
