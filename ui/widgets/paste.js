// Takes a picture from the clipboard, anywhere on the page; see ui/paste.py.
export default function ({ data, setTriggerValue }) {
  const pasted = (event) => {
    const file = [...(event.clipboardData?.files ?? [])].find((one) =>
      one.type.startsWith("image/"),
    );
    if (!file) return;
    event.preventDefault();
    if (file.size > data.most) {
      setTriggerValue("picture", { name: file.name, size: file.size, n: Date.now() });
      return;
    }
    const reader = new FileReader();
    reader.onload = () =>
      setTriggerValue("picture", {
        name: file.name || "pasted",
        content: String(reader.result).split(",", 2)[1],
        n: Date.now(),
      });
    reader.readAsDataURL(file);
  };
  document.addEventListener("paste", pasted);
  return () => document.removeEventListener("paste", pasted);
}
