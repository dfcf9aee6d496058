/** Where pictures are drawn: the switch, and the key that the service asks for. */

import { find } from "./dom.js";
import type { ServiceConfig } from "./service.js";

export type Place = "service" | "tab";

const KEY = "galip API key";
const TAGLINES = { service: "Drawn by this server.", tab: "Drawn while you move, in this tab." };
const keyField = find<HTMLInputElement>("#key");

/** Show what there is to choose. `chosen` is called with the place that the visitor chooses, or after a new key. */
export function offerPlaces(service: ServiceConfig, chosen: (place: Place) => void): void {
  find("#place").hidden = find("#own-bundle").hidden = !service.tab;
  find("#key-field").hidden = !service.key;
  keyField.value = sessionStorage.getItem(KEY) ?? "";
  keyField.onchange = () => {
    sessionStorage.setItem(KEY, apiKey());
    chosen("service");
  };
  document.querySelectorAll<HTMLInputElement>("[name=place]").forEach((radio) => {
    radio.onchange = () => chosen(radio.value as Place);
  });
}

/** Show where pictures are drawn. */
export function showPlace(place: Place): void {
  find<HTMLInputElement>(`[name=place][value=${place}]`).checked = true;
  find("#tagline").textContent = TAGLINES[place];
}

/** Return the visitor's key; empty for none. */
export function apiKey(): string {
  return keyField.value.trim();
}
