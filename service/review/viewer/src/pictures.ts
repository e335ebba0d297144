/** Pictures of frames: fetched once, decoded, and kept while memory allows. */
import { noticed, refusal } from "./page";

export type What = "image" | "mask" | "restoration" | "residual";

const LIMIT_BYTES = 256 * 1024 * 1024;

export class Pictures {
  private readonly kept = new Map<string, Promise<ImageBitmap>>();
  private bytes = 0;

  address(uid: string, sha256: string, frame: number, what: What): string {
    const webp = what === "image" || what === "restoration" ? "&webp=1" : "";
    return `/api/instances/${uid}/frames/${frame}/${what}?sha256=${sha256}${webp}`;
  }

  get(address: string): Promise<ImageBitmap> {
    const known = this.kept.get(address);
    if (known) {
      this.kept.delete(address); // to the end: what was looked at last goes last
      this.kept.set(address, known);
      return known;
    }
    return this.keep(address, load(address));
  }

  /** A picture that the page shows already need not be fetched again. */
  adopt(address: string, shown: HTMLImageElement): void {
    const decoded = shown.decode().then(() => createImageBitmap(shown));
    void this.keep(address, decoded.catch(() => load(address))).catch(() => undefined);
  }

  private keep(address: string, loading: Promise<ImageBitmap>): Promise<ImageBitmap> {
    const coming = loading.then((bitmap) => {
      this.bytes += bitmap.width * bitmap.height * 4;
      this.forget(address);
      return bitmap;
    });
    coming.catch(() => this.kept.delete(address));
    this.kept.set(address, coming);
    return coming;
  }

  private forget(newest: string): void {
    for (const [address, coming] of this.kept) {
      if (this.bytes <= LIMIT_BYTES || address === newest) return;
      this.kept.delete(address);
      void coming.then((bitmap) => {
        this.bytes -= bitmap.width * bitmap.height * 4;
        bitmap.close();
      });
    }
  }
}

async function load(address: string): Promise<ImageBitmap> {
  const answer = await fetch(address, { credentials: "same-origin" });
  if (!noticed(answer).ok) throw await refusal(answer);
  return createImageBitmap(await answer.blob());
}
