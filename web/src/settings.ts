// Parameters, the model that answers, light and dark.

import { models } from "./api";
import { byId, element } from "./dom";
import { saveSettings, settings, type Settings } from "./store";

const kThemes = { "": "Auto", light: "Light", dark: "Dark" } as const;

function bind(id: string, name: Exclude<keyof Settings, "theme">): void {
  const field = byId<HTMLInputElement>(id);
  field.value = settings[name];
  field.onchange = () => {
    // What is no number reads as empty: it is not sent.
    settings[name] = field.validity.valid ? field.value : "";
    if (name === "key") void showModels();
    saveSettings();
  };
}

function showTheme(): void {
  document.documentElement.dataset.theme = settings.theme;
  const button = byId<HTMLButtonElement>("theme");
  button.textContent = `◐ ${kThemes[settings.theme]}`;
  button.title = "Light, dark, or as the system says";
}

/** Asked for again when the server has come back, or a key was given. */
export async function showModels(): Promise<void> {
  const choice = byId<HTMLSelectElement>("model");
  try {
    const names = await models();
    choice.replaceChildren(...names.map((name) => element("option", { value: name, textContent: name })));
    if (!names.includes(settings.model)) settings.model = names[0] ?? "";
    choice.value = settings.model;
    choice.disabled = names.length < 2;
    choice.onchange = () => {
      settings.model = choice.value;
      saveSettings();
    };
  } catch {
    // The memory view, which asks all the time, says what is wrong.
  }
}

export function startSettings(): void {
  byId("parameter-form").onsubmit = (event) => event.preventDefault();
  bind("system", "system");
  bind("temperature", "temperature");
  bind("top-p", "topP");
  bind("max-tokens", "maxTokens");
  bind("seed", "seed");
  bind("key", "key");
  byId("theme").onclick = () => {
    const names = Object.keys(kThemes) as (keyof typeof kThemes)[];
    settings.theme = names[(names.indexOf(settings.theme) + 1) % names.length] ?? "";
    saveSettings();
    showTheme();
  };
  showTheme();
  void showModels();
}
