// A React hook: the picture of a prompt and a seed, drawn again whenever they change.
import { useEffect, useState } from "react";
import { type BundlePlace, load, type Model, type Progress, type Seed } from "galip-runtime";

export interface Galip {
  readonly picture: ImageData | undefined;
  readonly progress: Progress | undefined;
  readonly error: Error | undefined;
}

export function useGalip(bundle: BundlePlace, prompt: string, seed: Seed): Galip {
  const [model, setModel] = useState<Model<ImageData>>();
  const [picture, setPicture] = useState<ImageData>();
  const [progress, setProgress] = useState<Progress>();
  const [error, setError] = useState<Error>();

  useEffect(() => {
    const stop = new AbortController();
    const loading = load(bundle, { signal: stop.signal, onProgress: setProgress });
    loading.then(setModel, (reason: Error) => stop.signal.aborted || setError(reason));
    return () => {
      stop.abort();
      setModel(undefined);
      loading.then((loaded) => loaded.dispose()).catch(() => undefined); // the error is shown already
    };
  }, [bundle]);

  useEffect(() => {
    if (!model) return;
    const stop = new AbortController();
    model.generate({ prompts: prompt, seeds: seed, signal: stop.signal }).then(
      ([newest]) => stop.signal.aborted || (setPicture(newest), setError(undefined)),
      (reason: Error) => stop.signal.aborted || setError(reason),
    );
    return () => stop.abort();
  }, [model, prompt, seed]);

  return { picture, progress, error };
}
