const form = document.querySelector("form"), cards = [...document.querySelectorAll("article")];
const answer = (card) => card.querySelector("input:checked")?.value ?? "";
const count = () => {
  const done = cards.filter((card) => answer(card) !== "").length;
  document.querySelector("output").value = `${done} of ${cards.length} answered`;
};
const cell = (text) => `"${text.replaceAll('"', '""')}"`;
form.addEventListener("change", count);
form.addEventListener("submit", (event) => {
  event.preventDefault();
  const rows = cards.map((card) => [card.dataset.first, card.dataset.second, answer(card)]);
  const lines = [["first", "second", "same"], ...JSON.parse(form.dataset.answered), ...rows];
  const text = lines.map((row) => row.map(cell).join(",") + "\n").join("");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = "answers.csv";
  link.click();
});
count();
