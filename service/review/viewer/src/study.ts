/** What the page knows of its study: the server writes it into the page as JSON. */
import type { Box, Mark } from "./marks";
import { need } from "./page";

export interface AssessedFrame {
  number: number;
  rows: number;
  columns: number;
  mask: boolean;
  flagged: boolean;
  marks: Mark[];
}

/** A person's word on a mark: with `annotation`, that this mark of the network is none; without, a mark a person drew. */
export interface Correction {
  id: number;
  frame: number;
  kind: string;
  box: Box;
  annotation: number | null;
  user: string;
}

export interface StudyImage {
  uid: string;
  sha256: string;
  rows: number;
  columns: number;
  count: number;
  fps: number;
  state: string;
  reason: string;
  cure: string;
  frames: AssessedFrame[];
  corrections: Correction[];
}

interface StudyData {
  study: string;
  version: number;
  user: string;
  decides: boolean;
  blinded: boolean; // a second read: nothing that the network or anybody said may show
  heat_top: number; // grey levels at the top of the heat map's scale
  kinds: Record<string, string>;
  start: [number, number] | null;
  images: StudyImage[];
}

export const data = JSON.parse(need("study-data").textContent ?? "{}") as StudyData;

/** The frame's marks as they stand: the network's, those that a person says are none, and those a person drew. */
export function marksOn(image: StudyImage, frame: number): Mark[] {
  const said = image.corrections.filter((each) => each.frame === frame);
  const none = new Set(said.map((each) => each.annotation));
  const found = image.frames.find((each) => each.number === frame)?.marks ?? [];
  return [
    ...found.map((mark) => ({ ...mark, rejected: none.has(mark.id) })),
    ...said
      .filter((each) => each.annotation === null)
      .map((each) => ({ id: -each.id, kind: each.kind, score: 1, box: each.box, source: `person ${each.user}`, rejected: false })),
  ];
}

export function kindWords(kind: string): string {
  return data.kinds[kind] ?? kind;
}
